"""unittest's old names, which the course's tests call and which Python 3.12 removed."""

from __future__ import annotations

from unittest import TestCase

OLD = {
    "assertEquals": "assertEqual",
    "assertNotEquals": "assertNotEqual",
    "assertAlmostEquals": "assertAlmostEqual",
    "assertNotAlmostEquals": "assertNotAlmostEqual",
    "assertRegexpMatches": "assertRegex",
    "assertNotRegexpMatches": "assertNotRegex",
    "assertRaisesRegexp": "assertRaisesRegex",
    "assert_": "assertTrue",
}


def restore_names() -> None:
    """Give ``unittest.TestCase`` the old names that this Python does not have."""
    for old, new in OLD.items():
        if not hasattr(TestCase, old):
            setattr(TestCase, old, getattr(TestCase, new))
