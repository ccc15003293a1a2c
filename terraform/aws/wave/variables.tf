variable "deployment" {
  description = "The deployment that owns these machines, as the tag tango-deployment spells it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9_-]{1,63}$", var.deployment))
    error_message = "The deployment must be 1 to 63 of the characters a-z, 0-9, _ and -."
  }
}

variable "wave" {
  description = "The name of this wave: the machines that one apply creates."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9_-]{1,63}$", var.wave))
    error_message = "The wave must be 1 to 63 of the characters a-z, 0-9, _ and -."
  }
}

variable "machines" {
  description = "The machines of this wave, each under its uid: 12 hexadecimal digits that no other machine ever has. The image is an AMI's id, the zone one of the envelope's, the expiry a time as in RFC 3339."
  type = map(object({
    image         = string
    instance_type = string
    zone          = string
    market        = optional(string, "on-demand")
    disk_gib      = optional(number)
    tags          = map(string)
    expires       = string
  }))
  nullable = false

  validation {
    condition     = alltrue([for uid in keys(var.machines) : can(regex("^[0-9a-f]{12}$", uid))])
    error_message = "Every key of machines must be a uid: 12 hexadecimal digits in lower case."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : can(regex("^ami-[0-9a-f]+$", machine.image))])
    error_message = "A machine's image must be the id of an AMI: ami-0123456789abcdef0."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", machine.instance_type))])
    error_message = "A machine's instance_type must be one of EC2's: t3.small."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : contains(["on-demand", "spot"], machine.market)])
    error_message = "A machine's market must be on-demand or spot."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : machine.disk_gib == null || try(machine.disk_gib >= 1 && machine.disk_gib <= 16384 && floor(machine.disk_gib) == machine.disk_gib, false)])
    error_message = "A machine's disk_gib must be a whole number from 1 to 16384, or null for the image's own size."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : can(timeadd(machine.expires, "0s"))])
    error_message = "A machine's expires must be a time as in RFC 3339, for example 2030-01-31T12:00:00Z."
  }

  validation {
    condition = alltrue([
      for machine in values(var.machines) : alltrue([
        for key, text in machine.tags :
        key == "Name" ? length(text) <= 256 : can(regex("^[a-z0-9_-]{1,63}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", text))
      ])
    ])
    error_message = "A machine's tags must keep to the characters a-z, 0-9, _ and -, and to 63 of them; only Name may be any text of up to 256 characters."
  }

  validation {
    condition = alltrue([
      for machine in values(var.machines) : lookup(machine.tags, "tango-deployment", "") != ""
    ])
    error_message = "A machine's tags must hold tango-deployment: who owns the machine is known by it."
  }
}

variable "user_data" {
  description = "What each machine is told at its first boot, under its uid: up to 16 KB of what cloud-init understands. Needed to create machines, not to remove them."
  type        = map(string)
  default     = {}
  nullable    = false
  sensitive   = true

  # Base64 is what can be counted in bytes here; that makes the limit exact to 2 bytes.
  validation {
    condition     = alltrue([for text in values(var.user_data) : length(base64encode(text)) <= 21848])
    error_message = "A machine's user data must not be longer than 16384 bytes, which is EC2's limit."
  }
}

variable "envelope" {
  description = "The output envelope of the module aws/envelope."
  type = object({
    subnets                 = map(string)
    security_group_id       = string
    launch_template_id      = string
    launch_template_version = string
    public_address          = optional(bool, false)
    kms_key_id              = optional(string)
  })
  nullable = false

  validation {
    condition     = length(var.envelope.subnets) > 0
    error_message = "The envelope must have a subnet in at least one zone."
  }
}
