"""Tests of reports over a period."""
