"""The `ansible` transport: for each step of a job a playbook of `ansible/`, by ansible-runner."""
