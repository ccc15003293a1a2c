"""A simulated hashicorp/google: its published schema, served to Terraform, for an emulated cloud.

Runs in a virtual environment of its own, see `install.sh`: it imports nothing of tango_cloud.
"""
