locals {
  # A deployment may be named as no resource can be, hence the digest. Made once: an apply that was
  # killed half-way is repeated under other names, where its own would be taken.
  tag         = "tango-${substr(sha256(var.deployment), 0, 12)}"
  name        = "${local.tag}-${formatdate("YYYYMMDDhhmmss", plantimestamp())}"
  description = "Machines of the deployment ${var.deployment}"
}

resource "google_compute_firewall" "ssh" {
  # A rule holds ranges of one family.
  for_each    = { for family, ranges in local.ssh_from : family => ranges if length(ranges) > 0 }
  name        = "${local.name}-${each.key}"
  description = "${local.description}: SSH from the orchestrator."
  project     = local.network_project
  network     = local.network
  direction   = "INGRESS"

  target_tags   = [local.tag]
  source_ranges = each.value

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }

  lifecycle {
    ignore_changes = [name]

    precondition {
      condition     = alltrue([for subnetwork in data.google_compute_subnetwork.existing : basename(subnetwork.network) == basename(local.network)])
      error_message = "Every subnetwork of the network must be in it."
    }

    precondition {
      condition     = var.network == null || length(local.existing_subnetworks) > 0
      error_message = "There is no subnetwork in the region of any of the zones."
    }
  }
}

locals {
  # As Compute Engine writes them, with no bit set behind the prefix.
  ranges = distinct([for range in var.ssh_from : "${cidrhost(range, 0)}/${split("/", range)[1]}"])
  ssh_from = {
    ipv4 = [for range in local.ranges : range if can(cidrnetmask(range))]
    ipv6 = [for range in local.ranges : range if !can(cidrnetmask(range))]
  }
}
