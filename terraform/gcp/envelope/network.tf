# The network: an existing one, or one that is made, with a subnetwork in each region.

data "google_compute_subnetwork" "existing" {
  for_each = local.existing_subnetworks

  # A name says neither region nor project, a path says both.
  name      = can(regex("/", each.value)) ? null : each.value
  region    = can(regex("/", each.value)) ? null : each.key
  self_link = can(regex("/", each.value)) ? each.value : null
}

locals {
  regions = { for zone in var.zones : zone => trimsuffix(zone, substr(zone, -2, 2)) }

  # By the region's place in the order of the zones.
  made_cidrs = {
    for place, region in(var.network == null ? distinct([for zone in var.zones : local.regions[zone]]) : []) :
    region => cidrsubnet(var.network_cidr, 3, place)
  }

  existing_subnetworks = {
    for region, subnetwork in try(var.network.subnetworks, {}) :
    region => subnetwork if contains(values(local.regions), region)
  }

  network         = var.network == null ? google_compute_network.made[0].id : var.network.network
  network_project = try(regex("projects/([^/]+)/", var.network.network)[0], null)

  by_region = (
    var.network == null
    ? { for region, subnetwork in google_compute_subnetwork.made : region => subnetwork.id }
    : { for region, subnetwork in data.google_compute_subnetwork.existing : region => subnetwork.id }
  )
  subnets = tomap({
    for zone, region in local.regions : zone => local.by_region[region] if contains(keys(local.by_region), region)
  })
}

resource "google_compute_network" "made" {
  count       = var.network == null ? 1 : 0
  name        = local.name
  description = "${local.description}."

  auto_create_subnetworks = false

  lifecycle {
    ignore_changes = [name]
  }
}

resource "google_compute_subnetwork" "made" {
  for_each      = local.made_cidrs
  name          = local.name
  description   = "${local.description}."
  network       = google_compute_network.made[0].id
  region        = each.key
  ip_cidr_range = each.value

  lifecycle {
    ignore_changes = [name]
  }
}
