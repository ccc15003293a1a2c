resource "google_compute_instance" "machine" {
  for_each     = var.machines
  name         = "tango-${each.key}"
  zone         = each.value.zone
  machine_type = each.value.instance_type
  labels       = each.value.tags
  tags         = [var.envelope.network_tag]

  metadata = merge(
    {
      # The account and its key are cloud-init's alone: no login of the project's, no console.
      block-project-ssh-keys = "TRUE"
      enable-oslogin         = "FALSE"
      serial-port-enable     = "FALSE"
      # Where the machine publishes the host key that it has made: none is told to it.
      enable-guest-attributes = "TRUE"
    },
    { for uid, text in var.user_data : "user-data" => text if uid == each.key },
  )

  can_ip_forward      = false
  deletion_protection = false

  # No service account: without the block there is none.

  boot_disk {
    auto_delete       = true
    kms_key_self_link = var.envelope.kms_key_id

    initialize_params {
      image = each.value.image
      size  = each.value.disk_gib
      # The machine series of the fourth generation (c4, c4a, n4 ...) take no other disk than Hyperdisk.
      type   = can(regex("^[a-z]4", each.value.instance_type)) ? "hyperdisk-balanced" : "pd-balanced"
      labels = each.value.tags
    }
  }

  network_interface {
    subnetwork = lookup(var.envelope.subnets, each.value.zone, null)

    # The block is the public address.
    dynamic "access_config" {
      for_each = var.envelope.public_address ? ["public"] : []
      content {}
    }
  }

  scheduling {
    provisioning_model  = each.value.market == "spot" ? "SPOT" : "STANDARD"
    preemptible         = each.value.market == "spot"
    on_host_maintenance = each.value.market == "spot" ? "TERMINATE" : null

    # A machine is never started again under a running job.
    automatic_restart           = false
    instance_termination_action = "DELETE"

    max_run_duration {
      seconds = each.value.run_seconds
    }
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  lifecycle {
    # A machine is made once. Nothing that changes later, in the envelope, the image or the cloud's
    # own answers, may replace it under a running job.
    ignore_changes = all

    precondition {
      condition     = contains(keys(var.envelope.subnets), each.value.zone)
      error_message = "The envelope has no subnetwork for the zone ${each.value.zone} of the machine ${each.key}."
    }
  }
}
