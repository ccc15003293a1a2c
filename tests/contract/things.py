"""A module that needs no plugin: things, each of which is made by a command."""

from __future__ import annotations

from pathlib import Path

MAIN = """
variable "things" {
  type = map(string)
}
variable "secret" {
  type      = string
  default   = "none"
  sensitive = true
}
resource "terraform_data" "thing" {
  for_each = var.things
  input    = each.key
  provisioner "local-exec" {
    command     = each.value
    environment = { SECRET = var.secret }
  }
}
output "things" {
  value = { for key, thing in terraform_data.thing : key => thing.output }
}
"""
FOR_EVER = "exec sleep 600"


def make_module(modules: Path, kind: str) -> Path:
    """Write the module `fake/<kind>`; `modules`."""
    module = modules / "fake" / kind
    module.mkdir(parents=True)
    (module / "main.tf").write_text(MAIN)
    return modules
