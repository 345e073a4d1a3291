"""Neurons that torch and snnTorch do not bring."""
