"""Small multimodal models with real language weights, and the pictures and questions they are made for."""
