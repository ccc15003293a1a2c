"""A student's work. One function has a mistake."""


def is_palindrome(text):
    return text == text[::-1]


def word_counts(text):
    counts = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return counts
