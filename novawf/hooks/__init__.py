"""Hooks of agent CLIs, kept from looping and from starting agents (spec §5.3, §11)."""
