"""DECISIONS on who may: facts in, verdict and deciding rule out."""
