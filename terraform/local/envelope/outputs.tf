output "envelope" {
  description = "What the module local/wave needs to know."
  value = {
    root      = terraform_data.cloud.output.root
    python    = terraform_data.cloud.output.python
    server    = var.server
    isolate   = var.isolate
    addresses = var.addresses
  }
}
