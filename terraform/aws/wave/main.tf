resource "aws_instance" "machine" {
  for_each = var.machines

  launch_template {
    id      = var.envelope.launch_template_id
    version = var.envelope.launch_template_version
  }

  ami           = each.value.image
  instance_type = each.value.instance_type
  user_data     = lookup(var.user_data, each.key, null)

  # In the launch template too; said again, because without it no machine ends at its expiry.
  instance_initiated_shutdown_behavior = "terminate"

  # Said outright, also when it is false: a subnet may hand out public addresses by itself.
  subnet_id                   = lookup(var.envelope.subnets, each.value.zone, null)
  vpc_security_group_ids      = [var.envelope.security_group_id]
  associate_public_ip_address = var.envelope.public_address

  # Both travel in the creating call; the tags of a block device would follow in another one.
  tags        = each.value.tags
  volume_tags = each.value.tags

  root_block_device {
    volume_type           = "gp3"
    volume_size           = each.value.disk_gib
    encrypted             = true
    kms_key_id            = var.envelope.kms_key_id
    delete_on_termination = true
  }

  dynamic "instance_market_options" {
    for_each = each.value.market == "spot" ? ["spot"] : []

    content {
      market_type = instance_market_options.value

      spot_options {
        spot_instance_type             = "one-time"
        instance_interruption_behavior = "terminate"
      }
    }
  }

  lifecycle {
    # A machine is made once. Nothing that changes later, in the envelope, the image or the cloud's
    # own answers, may replace it under a running job.
    ignore_changes = all

    precondition {
      condition     = contains(keys(var.envelope.subnets), each.value.zone)
      error_message = "The envelope has no subnet in the zone ${each.value.zone} of the machine ${each.key}."
    }
  }
}
