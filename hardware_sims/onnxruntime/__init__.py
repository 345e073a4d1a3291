"""The ONNX form of a deployment in onnxruntime."""
