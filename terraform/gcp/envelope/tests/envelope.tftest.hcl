# Without an account: `terraform test` in this folder.

mock_provider "google" {
  mock_resource "google_compute_network" {
    defaults = { id = "projects/p/global/networks/made" }
  }

  mock_resource "google_compute_subnetwork" {
    defaults = { id = "projects/p/regions/r/subnetworks/made" }
  }

  mock_data "google_compute_subnetwork" {
    defaults = { id = "projects/p/regions/r/subnetworks/existing", network = "https://www.googleapis.com/compute/v1/projects/p/global/networks/shared" }
  }
}

variables {
  deployment = "prod_1"
  ssh_from   = ["192.0.2.7/32"]
  zones      = ["us-central1-a", "us-central1-f", "northamerica-northeast1-b"]
}

run "a_network_is_made_with_a_subnetwork_in_each_region" {
  assert {
    condition     = { for region, subnetwork in google_compute_subnetwork.made : region => subnetwork.ip_cidr_range } == { us-central1 = "10.88.0.0/23", northamerica-northeast1 = "10.88.2.0/23" }
    error_message = "The range of a subnetwork must follow from the place of its region in the zones."
  }

  assert {
    condition     = google_compute_network.made[0].auto_create_subnetworks == false && alltrue([for subnetwork in google_compute_subnetwork.made : subnetwork.network == "projects/p/global/networks/made"])
    error_message = "The network must have our subnetworks, and no others."
  }

  assert {
    condition     = keys(output.envelope.subnets) == tolist(["northamerica-northeast1-b", "us-central1-a", "us-central1-f"]) && can(regex("^tango-[0-9a-f]{12}$", output.envelope.network_tag)) && !output.envelope.public_address && output.envelope.kms_key_id == null
    error_message = "The envelope must hold what a wave needs."
  }

  assert {
    condition     = alltrue([for made in concat([google_compute_network.made[0]], values(google_compute_subnetwork.made), values(google_compute_firewall.ssh)) : startswith(made.name, "${output.envelope.network_tag}-") && strcontains(made.description, "prod_1")])
    error_message = "Everything must say whose it is."
  }
}

run "port_22_is_open_to_whom_is_named" {
  command = plan

  variables {
    ssh_from = ["10.1.2.3/16", "2001:db8::7/128"]
  }

  assert {
    condition     = { for family, rule in google_compute_firewall.ssh : family => rule.source_ranges } == { ipv4 = toset(["10.1.0.0/16"]), ipv6 = toset(["2001:db8::7/128"]) }
    error_message = "A rule for each family, with ranges as Compute Engine writes them."
  }

  assert {
    condition     = alltrue([for rule in google_compute_firewall.ssh : rule.direction == "INGRESS" && one(rule.allow).protocol == "tcp" && one(rule.allow).ports == tolist(["22"]) && rule.target_tags == toset([output.envelope.network_tag])])
    error_message = "Only port 22, and only of machines."
  }
}

run "an_existing_network_is_used" {
  command = plan

  variables {
    network = { network = "shared", subnetworks = { us-central1 = "here", europe-west1 = "there" } }
  }

  assert {
    condition     = length(google_compute_network.made) == 0 && length(google_compute_subnetwork.made) == 0 && google_compute_firewall.ssh["ipv4"].network == "shared"
    error_message = "Nothing may be made beside it."
  }

  assert {
    condition     = keys(data.google_compute_subnetwork.existing) == ["us-central1"] && data.google_compute_subnetwork.existing["us-central1"].name == "here" && data.google_compute_subnetwork.existing["us-central1"].region == "us-central1"
    error_message = "Only subnetworks in the regions of the zones count."
  }

  assert {
    condition     = output.envelope.subnets == tomap({ us-central1-a = "projects/p/regions/r/subnetworks/existing", us-central1-f = "projects/p/regions/r/subnetworks/existing" })
    error_message = "A zone in a region without a subnetwork is left out."
  }
}

run "a_network_of_another_project_is_used" {
  command = plan

  variables {
    network = { network = "projects/host/global/networks/shared", subnetworks = { us-central1 = "projects/host/regions/us-central1/subnetworks/here" } }
  }

  assert {
    condition     = google_compute_firewall.ssh["ipv4"].project == "host" && data.google_compute_subnetwork.existing["us-central1"].self_link == "projects/host/regions/us-central1/subnetworks/here"
    error_message = "The rule must be made where the network is."
  }
}

run "an_existing_network_has_the_subnetworks" {
  command = plan

  variables {
    network = { network = "another", subnetworks = { us-central1 = "here" } }
  }

  expect_failures = [google_compute_firewall.ssh]
}

run "some_subnetwork_is_in_a_region_asked_for" {
  command = plan

  variables {
    network = { network = "shared", subnetworks = { europe-west1 = "there" } }
  }

  expect_failures = [google_compute_firewall.ssh]
}

run "everything_wrong_is_said_at_once" {
  command = plan

  variables {
    deployment   = "prod 2"
    network_cidr = "10.0.0.0/8"
    zones        = ["us-central1"]
    network      = { network = "Mine", subnetworks = {} }
    ssh_from     = []
    kms_key_id   = "mine"
  }

  expect_failures = [var.deployment, var.network_cidr, var.zones, var.network, var.ssh_from, var.kms_key_id]
}

run "some_zone_is_named" {
  command = plan

  variables {
    zones = []
  }

  expect_failures = [var.zones]
}

run "the_range_is_enough_for_all_regions" {
  command = plan

  variables {
    zones = [for number in range(1, 10) : "europe-west${number}-a"]
  }

  expect_failures = [var.zones]
}

run "not_the_whole_internet" {
  command = plan

  variables {
    ssh_from = ["0.0.0.0/1"]
  }

  expect_failures = [var.ssh_from]
}

run "nor_the_whole_of_ipv6" {
  command = plan

  variables {
    ssh_from = ["2000::/12"]
  }

  expect_failures = [var.ssh_from]
}
