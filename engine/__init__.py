"""The loop, checkpoints, metrics, seeding and logging: nothing here knows a paper."""
