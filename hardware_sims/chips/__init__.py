"""Chips as data: what a core holds, how cores lie on the mesh, and where each figure comes from."""
