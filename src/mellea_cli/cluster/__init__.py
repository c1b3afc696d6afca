"""One run on many machines: the driver's side, and the worker that runs on each of them."""
