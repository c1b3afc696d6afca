"""Sessions, thunks, contexts: what `import mellea_cli` offers."""
