"""Teachers, spiking students and the arithmetic both share. Imports nothing: pick the module you need."""
