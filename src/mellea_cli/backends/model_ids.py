"""Models by the names that each kind of server has for them, for `start_session(model_id=...)`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelIdentifier:
    """A model's name on each kind of server; empty where it has none."""

    hf_model_name: str = ""
    ollama_name: str = ""
    openai_name: str = ""

    def on(self, backend: str) -> str:
        """The model's name on a backend; on one without a name of its own, the first that there is."""
        if backend == "openai":
            return self.openai_name or self.hf_model_name or self.ollama_name
        return self.ollama_name or self.hf_model_name or self.openai_name


IBM_GRANITE_4_HYBRID_MICRO = ModelIdentifier("ibm-granite/granite-4.0-h-micro", "granite4:micro-h")
IBM_GRANITE_4_HYBRID_TINY = ModelIdentifier("ibm-granite/granite-4.0-h-tiny", "granite4:tiny-h")
IBM_GRANITE_4_HYBRID_SMALL = ModelIdentifier("ibm-granite/granite-4.0-h-small", "granite4:small-h")
IBM_GRANITE_4_HYBRID_1B = ModelIdentifier("ibm-granite/granite-4.0-h-1b", "granite4:1b-h")
IBM_GRANITE_4_HYBRID_350m = ModelIdentifier("ibm-granite/granite-4.0-h-350m", "granite4:350m-h")
IBM_GRANITE_4_1_3B = ModelIdentifier("ibm-granite/granite-4.1-3b", "granite4.1:3b")
IBM_GRANITE_4_1_8B = ModelIdentifier("ibm-granite/granite-4.1-8b", "granite4.1:8b")
IBM_GRANITE_4_1_30B = ModelIdentifier("ibm-granite/granite-4.1-30b", "granite4.1:30b")
IBM_GRANITE_4_2_3B = ModelIdentifier("ibm-granite/granite-4.2-3b", "granite4.2:3b")
IBM_GRANITE_4_2_8B = ModelIdentifier("ibm-granite/granite-4.2-8b", "granite4.2:8b")
IBM_GRANITE_4_2_30B = ModelIdentifier("ibm-granite/granite-4.2-30b", "granite4.2:30b")
IBM_GRANITE_3_2_8B = ModelIdentifier("ibm-granite/granite-3.2-8b-instruct", "granite3.2:8b")
IBM_GRANITE_3_3_8B = ModelIdentifier("ibm-granite/granite-3.3-8b-instruct", "granite3.3:8b")
IBM_GRANITE_4_MICRO_3B = ModelIdentifier("ibm-granite/granite-4.0-micro", "granite4:micro")
META_LLAMA_4_SCOUT_17B_16E_INSTRUCT = ModelIdentifier("unsloth/Llama-4-Scout-17B-16E-Instruct", "llama4:scout")
META_LLAMA_4_MAVERICK_17B_128E_INSTRUCT = ModelIdentifier(
    "unsloth/Llama-4-Maverick-17B-128E-Instruct", "llama4:maverick"
)
META_LLAMA_3_3_70B = ModelIdentifier("unsloth/Llama-3.3-70B-Instruct", "llama3.3:70b")
META_LLAMA_3_2_3B = ModelIdentifier("unsloth/Llama-3.2-3B-Instruct", "llama3.2:3b")
META_LLAMA_3_2_1B = ModelIdentifier("unsloth/Llama-3.2-1B", "llama3.2:1b")
MISTRALAI_MISTRAL_0_3_7B = ModelIdentifier("mistralai/Mistral-7B-Instruct-v0.3", "mistral:7b")
MISTRALAI_MISTRAL_SMALL_24B = ModelIdentifier("mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistral-small:latest")
MISTRALAI_MISTRAL_LARGE_123B = ModelIdentifier("mistralai/Mistral-Large-Instruct-2411", "mistral-large:latest")
QWEN3_0_6B = ModelIdentifier("Qwen/Qwen3-0.6B", "qwen3:0.6b")
QWEN3_1_7B = ModelIdentifier("Qwen/Qwen3-1.7B", "qwen3:1.7b")
QWEN3_8B = ModelIdentifier("Qwen/Qwen3-8B", "qwen3:8b")
QWEN3_14B = ModelIdentifier("Qwen/Qwen3-14B", "qwen3:14b")
NVIDIA_NEMOTRON_3_NANO_4B = ModelIdentifier("nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16", "nemotron-3-nano:4b")
NVIDIA_NEMOTRON_3_NANO_30B_A3B = ModelIdentifier(
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "nemotron-3-nano:30b", "nvidia/nemotron-3-nano-30b-a3b"
)
NVIDIA_NEMOTRON_3_SUPER_120B_A12B = ModelIdentifier(
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16", "nemotron-3-super:120b", "nvidia/nemotron-3-super-120b-a12b"
)
NVIDIA_NEMOTRON_3_ULTRA_550B_A55B = ModelIdentifier(
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", "nemotron-3-ultra:cloud", "nvidia/nemotron-3-ultra-550b-a55b"
)
NVIDIA_NEMOTRON_3_NANO_OMNI_30B_A3B = ModelIdentifier(
    "nvidia/Nemotron-3-Nano-Omni-30B-A3B-Reasoning-BF16",
    "nemotron3:33b",
    "nvidia/nemotron-3-nano-omni-30b-a3b-reasoning",
)
NVIDIA_NEMOTRON_NANO_9B_V2 = ModelIdentifier(
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2", "", "nvidia/nvidia-nemotron-nano-9b-v2"
)
NVIDIA_LLAMA_3_1_NEMOTRON_NANO_8B = ModelIdentifier(
    "nvidia/Llama-3.1-Nemotron-Nano-8B-v1", "", "nvidia/llama-3.1-nemotron-nano-8b-v1"
)
NVIDIA_LLAMA_3_3_NEMOTRON_SUPER_49B = ModelIdentifier(
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "", "nvidia/llama-3.3-nemotron-super-49b-v1.5"
)
NVIDIA_LLAMA_3_1_NEMOTRON_ULTRA_253B = ModelIdentifier(
    "nvidia/Llama-3_1-Nemotron-Ultra-253B-v1", "", "nvidia/llama-3.1-nemotron-ultra-253b-v1"
)
NVIDIA_LLAMA_3_1_NEMOTRON_70B = ModelIdentifier(
    "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", "nemotron:70b", "nvidia/llama-3.1-nemotron-70b-instruct"
)
NVIDIA_NEMOTRON_MINI_4B = ModelIdentifier(
    "nvidia/Nemotron-Mini-4B-Instruct", "nemotron-mini:4b", "nvidia/nemotron-mini-4b-instruct"
)
OPENAI_GPT_OSS_20B = ModelIdentifier("openai/gpt-oss-20b", "gpt-oss:20b")
OPENAI_GPT_OSS_120B = ModelIdentifier("openai/gpt-oss-120b", "gpt-oss:120b")
OPENAI_GPT_5_1 = ModelIdentifier(openai_name="gpt-5.1")
GOOGLE_GEMMA_3N_E4B = ModelIdentifier("google/gemma-3n-e4b-it", "gemma3n:e4b")
MS_PHI_4_14B = ModelIdentifier("microsoft/phi-4", "phi4:14b")
MS_PHI_4_MINI_REASONING_4B = ModelIdentifier("microsoft/Phi-4-mini-flash-reasoning", "phi4-mini-reasoning:3.8b")
DEEPSEEK_R1_8B = ModelIdentifier("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek-r1:8b")
HF_SMOLLM2_2B = ModelIdentifier("HuggingFaceTB/SmolLM2-1.7B-Instruct", "smollm2:1.7b")
