"""The agent for callers who come and go: what Ansible's `command` runs on a machine.

Sent only to machines that are served in this way.
"""
