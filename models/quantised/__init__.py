"""Networks whose parameters are real numbers and whose forward pass is a chip's integer arithmetic."""
