#ifndef CALCULATOR_H
#define CALCULATOR_H

/* Evaluates an arithmetic expression of integers, + - * / and parentheses.
   Returns 0 and stores the value in *result; returns -1 if the text is not
   an expression or divides by zero. */
int evaluate(const char *text, long *result);

#endif
