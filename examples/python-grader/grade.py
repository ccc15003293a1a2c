"""Runs the tests and prints the score as Autolab's JSON line."""

import json
import sys
import unittest

from submission import is_palindrome, word_counts

POINTS = {"palindrome": 50, "word_counts": 50}


class Palindrome(unittest.TestCase):
    problem = "palindrome"

    def test_plain(self):
        self.assertTrue(is_palindrome("level"))
        self.assertFalse(is_palindrome("levels"))

    def test_case_and_spaces_do_not_count(self):
        self.assertTrue(is_palindrome("Never odd or even"))


class WordCounts(unittest.TestCase):
    problem = "word_counts"

    def test_counts(self):
        self.assertEqual(word_counts("The cat and the dog"), {"the": 2, "cat": 1, "and": 1, "dog": 1})

    def test_empty(self):
        self.assertEqual(word_counts(""), {})


def main():
    scores = {}
    for case in (Palindrome, WordCounts):
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
        passed = result.testsRun - len(result.failures) - len(result.errors)
        scores[case.problem] = POINTS[case.problem] * passed // result.testsRun
    print(json.dumps({"scores": scores}))
    return 0 if scores == POINTS else 1


if __name__ == "__main__":
    sys.exit(main())
