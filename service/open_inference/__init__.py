"""The Open Inference Protocol v2 (REST) with the binary tensor data extension: its tensors, messages and errors."""
