locals {
  # The port stays below the range from which Linux takes the ports of outgoing connections.
  first_port = 10240
  ports      = 22528

  # An address and a port that follow from the uid, so that they are known before the machine is.
  # Two machines that meet there are one in millions; the second then fails to start, and says so.
  address_count = pow(2, 32 - tonumber(split("/", var.envelope.addresses)[1]))
  addresses = {
    for uid in keys(var.machines) :
    uid => cidrhost(var.envelope.addresses, parseint(substr(uid, 0, 6), 16) % local.address_count)
  }
  machine_ports = {
    for uid in keys(var.machines) : uid => local.first_port + parseint(substr(uid, 6, 6), 16) % local.ports
  }
}

resource "terraform_data" "machine" {
  for_each = var.machines

  # A destroy-time provisioner sees nothing but this.
  input = {
    instance_id = "i-${each.key}"
    root        = var.envelope.root
    python      = var.envelope.python
  }

  # When this is cut short the machine ends by itself: Terraform runs no destroy-time provisioner of
  # a resource whose creation failed.
  provisioner "local-exec" {
    interpreter = [var.envelope.python, "-I", "-S", "${path.module}/machine"]
    command     = "start"

    environment = {
      TANGO_MACHINE = jsonencode(merge(each.value, {
        uid         = each.key
        instance_id = self.input.instance_id
        wave        = var.wave
        root        = var.envelope.root
        server      = var.envelope.server
        isolate     = var.envelope.isolate
        address     = local.addresses[each.key]
        port        = local.machine_ports[each.key]
      }))
      TANGO_USER_DATA = lookup(var.user_data, each.key, "")
    }
  }

  provisioner "local-exec" {
    when        = destroy
    interpreter = [self.input.python, "-I", "-S", "${path.module}/machine", "stop", self.input.root]
    command     = self.input.instance_id
  }
}
