#include "calculator.h"

#include <stdio.h>

int main(void) {
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        long value;
        if (evaluate(line, &value) != 0) {
            puts("error");
            return 1;
        }
        printf("%ld\n", value);
    }
    return 0;
}
