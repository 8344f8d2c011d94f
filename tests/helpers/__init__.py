"""Helpers of several test files, and programs that tests run as processes of their own."""

from pathlib import Path

HELPERS = Path(__file__).parent
