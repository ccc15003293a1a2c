# Without an account: `terraform test` in this folder.

mock_provider "google" {
  mock_resource "google_compute_instance" {
    defaults = { network_interface = { network_ip = "10.88.0.4", access_config = { nat_ip = "192.0.2.9" } } }
  }
}

variables {
  deployment = "prod"
  wave       = "w1"
  envelope = {
    subnets        = { us-central1-a = "projects/p/regions/us-central1/subnetworks/a", us-east1-b = "projects/p/regions/us-east1/subnetworks/b" }
    network_tag    = "tango-0a"
    public_address = false
    kms_key_id     = null
  }
  machines = {
    "00000000002a" = {
      image         = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
      instance_type = "e2-standard-2"
      zone          = "us-central1-a"
      tags          = { tango-deployment = "prod", tango-uid = "00000000002a" }
      expires       = "2040-01-31T12:00:00Z"
      run_seconds   = 3600
    }
    "ffffffffffff" = {
      image         = "projects/p/global/images/course"
      instance_type = "c4a-standard-4"
      zone          = "us-east1-b"
      market        = "spot"
      disk_gib      = 30
      tags          = { tango-deployment = "prod" }
      expires       = "2040-01-31T12:00:00+01:00"
      run_seconds   = 10368000
    }
  }
  user_data = { "00000000002a" = "#cloud-config\n{}" }
}

run "a_machine_is_what_was_asked_for" {
  assert {
    condition     = output.machines["00000000002a"] == { instance_id = "us-central1-a/tango-00000000002a", address = "10.88.0.4", port = 22, zone = "us-central1-a", instance_type = "e2-standard-2" }
    error_message = "A machine must be told by its zone and name, and by its private address."
  }

  assert {
    condition     = alltrue([for uid, machine in google_compute_instance.machine : machine.labels == var.machines[uid].tags && machine.boot_disk[0].initialize_params[0].labels == tomap(var.machines[uid].tags)])
    error_message = "Instance and disk must bear all labels."
  }

  assert {
    condition     = google_compute_instance.machine["ffffffffffff"].network_interface[0].subnetwork == "projects/p/regions/us-east1/subnetworks/b" && length(google_compute_instance.machine["ffffffffffff"].network_interface[0].access_config) == 0 && google_compute_instance.machine["ffffffffffff"].tags == toset(["tango-0a"])
    error_message = "A machine must be in its zone's subnetwork, without a public address, under the envelope's firewall rule."
  }

  assert {
    condition     = nonsensitive(google_compute_instance.machine["00000000002a"].metadata) == tomap({ block-project-ssh-keys = "TRUE", enable-guest-attributes = "TRUE", enable-oslogin = "FALSE", serial-port-enable = "FALSE", user-data = "#cloud-config\n{}" }) && !contains(keys(nonsensitive(google_compute_instance.machine["ffffffffffff"].metadata)), "user-data")
    error_message = "A machine must be told its own user data, and let in no other key."
  }

  assert {
    condition     = alltrue([for machine in google_compute_instance.machine : machine.boot_disk[0].auto_delete && machine.shielded_instance_config[0].enable_secure_boot && machine.shielded_instance_config[0].enable_vtpm && machine.shielded_instance_config[0].enable_integrity_monitoring && length(machine.service_account) == 0 && machine.deletion_protection == false])
    error_message = "A machine must be shielded, have no service account, and take its disk with it."
  }

  assert {
    condition     = google_compute_instance.machine["00000000002a"].boot_disk[0].initialize_params[0].type == "pd-balanced" && google_compute_instance.machine["ffffffffffff"].boot_disk[0].initialize_params[0].type == "hyperdisk-balanced" && google_compute_instance.machine["ffffffffffff"].boot_disk[0].initialize_params[0].size == 30
    error_message = "The disk must be of a kind that the machine type takes, and of the size asked for."
  }

  assert {
    condition     = alltrue([for uid, machine in google_compute_instance.machine : machine.scheduling[0].automatic_restart == false && machine.scheduling[0].instance_termination_action == "DELETE" && machine.scheduling[0].max_run_duration[0].seconds == var.machines[uid].run_seconds])
    error_message = "A machine must be deleted at its expiry, and never be started again."
  }

  assert {
    condition     = google_compute_instance.machine["00000000002a"].scheduling[0].provisioning_model == "STANDARD" && google_compute_instance.machine["00000000002a"].scheduling[0].preemptible == false && google_compute_instance.machine["ffffffffffff"].scheduling[0].provisioning_model == "SPOT" && google_compute_instance.machine["ffffffffffff"].scheduling[0].preemptible == true
    error_message = "The market must be the one asked for."
  }
}

run "what_changes_later_replaces_no_machine" {
  variables {
    envelope = {
      subnets        = { us-central1-a = "projects/p/regions/us-central1/subnetworks/z", us-east1-b = "projects/p/regions/us-east1/subnetworks/z" }
      network_tag    = "tango-1a"
      public_address = true
      kms_key_id     = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
    }
    user_data = {}
  }

  assert {
    condition     = google_compute_instance.machine["00000000002a"].network_interface[0].subnetwork == "projects/p/regions/us-central1/subnetworks/a" && google_compute_instance.machine["00000000002a"].tags == toset(["tango-0a"]) && output.machines["00000000002a"].address == "10.88.0.4"
    error_message = "A machine must stay as it was made, with its address."
  }
}

run "a_public_address_is_the_address" {
  variables {
    envelope = {
      subnets        = { us-central1-a = "projects/p/regions/us-central1/subnetworks/a" }
      network_tag    = "tango-0a"
      public_address = true
    }
    machines = {
      "00000000002b" = { image = "projects/p/global/images/course", instance_type = "e2-micro", zone = "us-central1-a", tags = { tango-deployment = "prod" }, expires = "2040-01-31T12:00:00Z", run_seconds = 30 }
    }
  }

  assert {
    condition     = output.machines["00000000002b"].address == "192.0.2.9"
    error_message = "A machine with a public address must be told by it."
  }
}

run "an_empty_wave_is_a_wave" {
  command = plan

  variables {
    machines = {}
  }

  assert {
    condition     = length(output.machines) == 0
    error_message = "No machine asked for, none given."
  }
}

run "the_zone_is_one_of_the_envelope" {
  command = plan

  variables {
    machines = {
      "00000000002b" = { image = "projects/p/global/images/course", instance_type = "e2-micro", zone = "us-west1-a", tags = { tango-deployment = "prod" }, expires = "2040-01-31T12:00:00Z", run_seconds = 30 }
    }
  }

  expect_failures = [google_compute_instance.machine]
}

run "everything_wrong_is_said_at_once" {
  command = plan

  variables {
    deployment = "prod 2"
    wave       = "Ω"
    machines = {
      "not-a-uid" = { image = "course", instance_type = "small", zone = "us-central1-a", market = "black", disk_gib = 0.5, tags = { Name = "x", tango-name = "Prod" }, expires = "tomorrow", run_seconds = 1 }
    }
    envelope = { subnets = {}, network_tag = "tango-0a" }
  }

  expect_failures = [var.deployment, var.wave, var.machines, var.envelope]
}

run "no_longer_than_the_cloud_allows" {
  command = plan

  variables {
    machines = {
      "00000000002b" = { image = "projects/p/global/images/course", instance_type = "e2-micro", zone = "us-central1-a", tags = { tango-deployment = "prod" }, expires = "2040-01-31T12:00:00Z", run_seconds = 10368001 }
    }
  }

  expect_failures = [var.machines]
}

run "a_label_begins_with_a_letter" {
  command = plan

  variables {
    machines = {
      "00000000002b" = { image = "projects/p/global/images/course", instance_type = "e2-micro", zone = "us-central1-a", tags = { tango-deployment = "prod", "1st" = "x" }, expires = "2040-01-31T12:00:00Z", run_seconds = 30 }
    }
  }

  expect_failures = [var.machines]
}

run "user_data_has_its_limit" {
  command = plan

  variables {
    user_data = { "00000000002a" = join("", [for n in range(263) : format("%01000d", n)]) }
  }

  expect_failures = [var.user_data]
}
