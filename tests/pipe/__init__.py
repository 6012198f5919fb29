"""Tests of q-pipe's own parts, without a broker."""
