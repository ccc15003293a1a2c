variable "deployment" {
  description = "The deployment that owns this envelope, as the tag tango-deployment spells it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9_-]{1,63}$", var.deployment))
    error_message = "The deployment must be 1 to 63 of the characters a-z, 0-9, _ and -."
  }
}

variable "network_cidr" {
  description = "The IPv4 range of the network that is made, in CIDR notation. Each zone has an eighth of it. Not used with an existing network."
  type        = string
  default     = "10.87.0.0/20"
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.network_cidr)) && try(tonumber(split("/", var.network_cidr)[1]) >= 16 && tonumber(split("/", var.network_cidr)[1]) <= 25, false)
    error_message = "The network_cidr must be an IPv4 range in CIDR notation, from /16 to /25."
  }
}

variable "zones" {
  description = "The availability zones to have a subnet in, for example us-east-1a. Empty: every zone of the region that needs no opt-in, or that the existing network has a subnet in."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z0-9-]+[a-h]$", zone))])
    error_message = "A zone must be the name of an availability zone, which ends in a letter from a to h: us-east-1a."
  }

  validation {
    condition     = length(distinct([for zone in var.zones : substr(zone, -1, 1)])) == length(var.zones)
    error_message = "Every zone must end in a letter of its own: the range of its subnet follows from it."
  }
}

variable "network" {
  description = "An existing network to use, by its VPC and subnets, of which the first in each zone counts. Null: one is made."
  type = object({
    vpc_id     = string
    subnet_ids = list(string)
  })
  default = null

  validation {
    condition     = var.network == null || can(regex("^vpc-[0-9a-f]+$", var.network.vpc_id))
    error_message = "The vpc_id of the network must be the id of a VPC: vpc-0123456789abcdef0."
  }

  validation {
    condition     = var.network == null || try(length(var.network.subnet_ids) > 0 && alltrue([for id in var.network.subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))]), false)
    error_message = "The subnet_ids of the network must be one or more ids of subnets: subnet-0123456789abcdef0."
  }
}

variable "ssh_from" {
  description = "The addresses that may reach port 22 of machines, IPv4 or IPv6, in CIDR notation: those of the orchestrator."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.ssh_from) > 0
    error_message = "The ssh_from must hold at least one range, or no machine could be reached."
  }

  validation {
    condition     = alltrue([for range in var.ssh_from : can(cidrhost(range, 0))])
    error_message = "Each of ssh_from must be in CIDR notation: 192.0.2.7/32 or 2001:db8::7/128."
  }

  validation {
    condition     = alltrue([for range in var.ssh_from : try(tonumber(split("/", range)[1]) >= (can(cidrnetmask(range)) ? 8 : 32), true)])
    error_message = "None of ssh_from may be wider than /8 (IPv6: /32): machines are for the orchestrator alone."
  }
}

variable "public_address" {
  description = "Whether machines have public addresses. A network that is made has a way to the internet only then."
  type        = bool
  default     = false
  nullable    = false
}

variable "kms_key_id" {
  description = "The ARN of the KMS key that encrypts the disks of machines. Null: the account's own key for EBS."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_id == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/.+$", var.kms_key_id))
    error_message = "The kms_key_id must be the ARN of a key: arn:aws:kms:us-east-1:123456789012:key/..."
  }
}
