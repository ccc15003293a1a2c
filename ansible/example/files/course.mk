# For the Makefiles of this course's jobs: `include course.mk`.
CFLAGS := -std=c11 -Wall -Wextra -Werror
