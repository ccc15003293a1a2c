output "envelope" {
  description = "What the module gcp/wave needs to know."
  value = {
    subnets        = local.subnets
    network_tag    = local.tag
    public_address = var.public_address
    kms_key_id     = var.kms_key_id
  }

  # A machine that nobody may reach would be made, and then never be reached.
  depends_on = [google_compute_firewall.ssh]
}
