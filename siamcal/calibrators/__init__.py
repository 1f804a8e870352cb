"""Calibrators as files: what describes them, saving and loading, adapters, cards, the Hub."""
