"""Real Lava, in an environment of its own behind a worker process."""
