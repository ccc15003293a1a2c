variable "deployment" {
  description = "The deployment that owns this envelope, as the label tango-deployment spells it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9_-]{1,63}$", var.deployment))
    error_message = "The deployment must be 1 to 63 of the characters a-z, 0-9, _ and -."
  }
}

variable "network_cidr" {
  description = "The IPv4 range of the network that is made, in CIDR notation. Each region has an eighth of it, in the order of the zones. Not used with an existing network."
  type        = string
  default     = "10.88.0.0/20"
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.network_cidr)) && try(tonumber(split("/", var.network_cidr)[1]) >= 16 && tonumber(split("/", var.network_cidr)[1]) <= 25, false)
    error_message = "The network_cidr must be an IPv4 range in CIDR notation, from /16 to /25."
  }
}

variable "zones" {
  description = "The zones that machines may be in, for example us-central1-a. With an existing network, those of them whose region it has a subnetwork in count."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) > 0
    error_message = "The zones must hold at least one zone."
  }

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z]+(-[a-z]+)+[0-9]+-[a-z]$", zone))])
    error_message = "A zone must be the name of a zone of Compute Engine: us-central1-a."
  }

  validation {
    condition     = length(distinct([for zone in var.zones : trimsuffix(zone, substr(zone, -2, 2))])) <= 8
    error_message = "The zones must be in at most 8 regions: each has an eighth of the network's range."
  }
}

variable "network" {
  description = "An existing network to use: its name or path, and the subnetwork of each region, by its name or path. Null: one is made."
  type = object({
    network     = string
    subnetworks = map(string)
  })
  default = null

  validation {
    condition     = var.network == null || can(regex("^([a-z0-9:/._-]+/)?[a-z]([a-z0-9-]*[a-z0-9])?$", var.network.network))
    error_message = "The network must be named, or be a path: default, or projects/.../global/networks/default."
  }

  validation {
    condition     = var.network == null || try(length(var.network.subnetworks) > 0 && alltrue([for region, name in var.network.subnetworks : can(regex("^[a-z]+(-[a-z]+)+[0-9]+$", region)) && can(regex("^([a-z0-9:/._-]+/)?[a-z]([a-z0-9-]*[a-z0-9])?$", name))]), false)
    error_message = "The subnetworks of the network must be one or more names or paths under their regions: { us-central1 = \"default\" }."
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
  description = "Whether machines have public addresses. Without one, and without a Cloud NAT of yours, a machine has no way to the internet."
  type        = bool
  default     = false
  nullable    = false
}

variable "kms_key_id" {
  description = "The path of the KMS key that encrypts the disks of machines. Null: Google's own keys."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_id == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key_id))
    error_message = "The kms_key_id must be the path of a key: projects/.../locations/.../keyRings/.../cryptoKeys/..."
  }
}
