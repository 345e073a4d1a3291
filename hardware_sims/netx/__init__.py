"""lava-dl's netx on real Lava, in an environment of its own behind a worker process."""
