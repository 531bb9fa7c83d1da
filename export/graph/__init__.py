"""From a PyTorch model to an ONNX graph: export, fusion, embeddings, merging."""
