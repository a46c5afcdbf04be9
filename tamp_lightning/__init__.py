"""Prune the weights of multimodal LLMs after training, the PyTorch Lightning way."""
