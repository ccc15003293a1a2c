#include "calculator.h"

#include <ctype.h>
#include <stdlib.h>

/* A recursive-descent parser: sum -> product -> factor. */
static const char *at;
static int failed;

static long sum(void);

static void skip_spaces(void) {
    while (isspace((unsigned char)*at)) at++;
}

static int accept(char wanted) {
    skip_spaces();
    if (*at != wanted) return 0;
    at++;
    return 1;
}

static long factor(void) {
    if (accept('-')) return -factor();
    if (accept('(')) {
        long value = sum();
        if (!accept(')')) failed = 1;
        return value;
    }
    skip_spaces();
    if (!isdigit((unsigned char)*at)) {
        failed = 1;
        return 0;
    }
    char *end;
    long value = strtol(at, &end, 10);
    at = end;
    return value;
}

static long product(void) {
    long value = factor();
    for (;;) {
        if (accept('*')) {
            value *= factor();
        } else if (accept('/')) {
            long divisor = factor();
            if (divisor == 0) {
                failed = 1;
                return 0;
            }
            value /= divisor;
        } else {
            return value;
        }
    }
}

static long sum(void) {
    long value = product();
    for (;;) {
        if (accept('+')) {
            value += product();
        } else if (accept('-')) {
            value -= product();
        } else {
            return value;
        }
    }
}

int evaluate(const char *text, long *result) {
    at = text;
    failed = 0;
    long value = sum();
    skip_spaces();
    if (failed || *at != '\0') return -1;
    *result = value;
    return 0;
}
