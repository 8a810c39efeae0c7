"""The main job as stages, each resumable and content-addressed: done once for the same inputs."""
