"""The renderer: people who differ at rest, moving through known action units."""
