"""Recovers a parametric human body (SMPL) from a photograph or from 2D joints."""
