#include "calculator.h"

#include <stdio.h>

static int failures;

static void expect(const char *text, long wanted) {
    long value = 0;
    int ok = evaluate(text, &value) == 0 && value == wanted;
    printf("%s  %s = %ld\n", ok ? "ok  " : "FAIL", text, wanted);
    failures += !ok;
}

static void expect_error(const char *text) {
    long value;
    int ok = evaluate(text, &value) != 0;
    printf("%s  %s is refused\n", ok ? "ok  " : "FAIL", text);
    failures += !ok;
}

int main(void) {
    expect("1 + 2 * 3", 7);
    expect("(1 + 2) * 3", 9);
    expect("10 / 3 - -4", 7);
    expect("2 - 3 - 4", -5);
    expect_error("1 / 0");
    expect_error("2 +");
    expect_error("(1");
    return failures != 0;
}
