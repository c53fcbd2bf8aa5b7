# Completion of xe for bash. Source it, or put it into /etc/bash_completion.d/xe
#
# Everything is asked of xe itself: the commands, what a command takes, and the objects there are. Answers that do not
# change while a shell runs are kept in it; uuids and names are asked for each time.

_xe_ask() {
    # Words of a --minimal answer, a line each; a comma inside a word is written \,
    command "$_xe_program" "$@" --minimal </dev/null 2>/dev/null | sed -e 's/\([^\\]\),/\1\n/g' -e 's/\\,/,/g' -e 's/\\\\/\\/g'
}

_xe_commands() {
    [[ -n ${_xe_known_commands-} ]] || _xe_known_commands=$(_xe_ask help --all && echo help)
    printf '%s\n' "$_xe_known_commands"
}

# The arguments of a command: required first. "<vm-selectors>" and the like stay as they are.
_xe_arguments() {
    declare -gA _xe_known_arguments
    if [[ -z ${_xe_known_arguments[$1]-} ]]; then
        _xe_known_arguments[$1]=$(command "$_xe_program" help "$1" </dev/null 2>/dev/null |
            sed -n -e 's/^ *reqd params *: *//p' -e 's/^ *optional params *: *//p' | sed -e 's/, */\n/g')
    fi
    printf '%s\n' "${_xe_known_arguments[$1]}"
}

# _xe_values CLASS FIELD: what objects of a class have in a field
_xe_values() {
    _xe_ask "$1-list" "params=$2"
}

# The class that a command works on: the longest class name that the command begins with.
_xe_class_of() {
    case $1 in
        host-cpu-* | host-crashdump-* | vgpu-type-* | gpu-group-* | usb-group-* | pvs-*-* | network-sriov-* | vm-group-*)
            local rest=${1#*-}
            printf '%s-%s' "${1%%-*}" "${rest%%-*}" ;;
        *) printf '%s' "${1%%-*}" ;;
    esac
}

# begin: python -m gespann.main.xe_completion writes this
# What a field of few possible values may be, by class and field.
_xe_choices_of_field() {
    case $1.$2 in
        vbd.type)
            printf '%s\n' CD Disk Floppy ;;
        host.ntp-mode)
            printf '%s\n' DHCP Custom Factory Disabled ;;
        *.actions-after-crash)
            printf '%s\n' Destroy 'Core dump and destroy' Restart 'Core dump and restart' Preserve 'Rename restart' ;;
        *.actions-after-reboot | *.actions-after-shutdown)
            printf '%s\n' Destroy Restart ;;
        pif.primary-address-type)
            printf '%s\n' IPv4 IPv6 ;;
        pif.IP-configuration-mode)
            printf '%s\n' None DHCP Static ;;
        pif.IPv6-configuration-mode)
            printf '%s\n' None DHCP Static Autoconf ;;
        vif.ipv6-configuration-mode)
            printf '%s\n' None Static Autoconf ;;
        vif.ipv4-configuration-mode)
            printf '%s\n' None Static DHCP ;;
        *.actions-after-softreboot)
            printf '%s\n' 'Soft reboot' Destroy Restart Preserve ;;
        vdi.type)
            printf '%s\n' System User Ephemeral Suspend Crashdump 'HA statefile' Metadata 'Redo log' rrd 'PVS cache' 'CBT metadata' ;;
        message.class)
            printf '%s\n' VM Host SR Pool VMPP VMSS PVS_proxy VDI Certificate ;;
        console.protocol)
            printf '%s\n' VT100 RFB RDP ;;
        vm-group.placement)
            printf '%s\n' anti_affinity normal ;;
        host.numa-affinity-policy)
            printf '%s\n' any best_effort default_policy ;;
        bond.mode)
            printf '%s\n' balance-slb active-backup lacp ;;
        gpu-group.allocation-algorithm)
            printf '%s\n' breadth_first depth_first ;;
        certificate.type)
            printf '%s\n' ca host host_internal pinned ;;
        pool.update-sync-frequency)
            printf '%s\n' daily weekly ;;
        pool.telemetry-frequency)
            printf '%s\n' daily weekly monthly ;;
        host.display | pgpu.dom0-access)
            printf '%s\n' enabled disable_on_reboot disabled enable_on_reboot ;;
        pif.igmp-snooping-status)
            printf '%s\n' enabled disabled unknown ;;
        tunnel.protocol)
            printf '%s\n' gre vxlan ;;
        *.power-state)
            printf '%s\n' halted paused running suspended ;;
        vmss.frequency)
            printf '%s\n' hourly daily weekly ;;
        *.domain-type)
            printf '%s\n' hvm pv pv-in-pvh pvh unspecified ;;
        vif.locking-mode)
            printf '%s\n' network_default locked unlocked disabled ;;
        *.secureboot-certificates-state)
            printf '%s\n' ok update_available update_on_boot ;;
        task.status)
            printf '%s\n' pending success failure cancelling cancelled ;;
        repository.origin)
            printf '%s\n' remote bundle remote_pool ;;
        vdi.on-boot)
            printf '%s\n' reset persist ;;
        vbd.mode)
            printf '%s\n' ro rw ;;
        vmss.type)
            printf '%s\n' snapshot checkpoint snapshot_with_quiesce ;;
        sdn-controller.protocol)
            printf '%s\n' ssl pssl ;;
        pvs-proxy.status)
            printf '%s\n' stopped initialised caching incompatible_write_cache_mode incompatible_protocol_version ;;
        *.currently-attached | *.enabled | *.experimental | *.ha-always-run | *.has-vendor-device | *.is-a-snapshot | \
        *.is-a-template | *.is-control-domain | *.is-default-template | *.is-vmss-snapshot | *.managed | \
        *.requires-reboot | *.storage-lock | *.tls-verification-enabled | bond.auto-update-mac | \
        cluster-host.joined | cluster-host.live | cluster.is-quorate | cluster.pool-auto-join | host.https-only | \
        host.multipathing | host.secure-boot | host.ssh-auto-mode | host.ssh-enabled | host.ssl-legacy | \
        pgpu.is-system-display-device | pif.disallow-unplug | pif.management | pif.physical | \
        pool.auto-update-vm-secureboot-certificates | pool.client-certificate-auth-enabled | pool.coordinator-bias | \
        pool.ext-auth-cache-enabled | pool.ha-allow-overcommit | pool.ha-enabled | pool.ha-overcommitted | \
        pool.ha-reboot-vm-on-internal-shutdown | pool.igmp-snooping-enabled | pool.limit-console-sessions | \
        pool.live-patching-disabled | pool.migration-compression | pool.policy-no-vendor-device | \
        pool.update-sync-enabled | pool.wlb-enabled | pool.wlb-verify-cert | pusb.passthrough-enabled | \
        repository.update | sr.clustered | sr.is-tools-sr | sr.local-cache-enabled | sr.shared | \
        update.enforce-homogeneity | vbd.bootable | vbd.empty | vbd.unpluggable | vdi.allow-caching | \
        vdi.cbt-enabled | vdi.is-tools-iso | vdi.metadata-latest | vdi.missing | vdi.read-only | vdi.sharable | \
        vif.MAC-autogenerated | vtpm.is_protected | vtpm.is_unique)
            printf '%s\n' true false ;;
        network.default-locking-mode)
            printf '%s\n' unlocked disabled ;;
        host.latest-synced-updates-applied)
            printf '%s\n' yes no unknown ;;
    esac
}
# end

# What a command's own argument may be where there is little to choose from, and no field of that name says it.
_xe_choices_of_argument() {
    case $1.$2 in
        sr-*.type) _xe_values sm type ;;
        sr-*.content-type) printf '%s\n' user iso ;;
        vbd-create.type) printf '%s\n' Disk CD ;;
        vdi-create.type) printf '%s\n' user system ;;
        pif-reconfigure-ip.mode) printf '%s\n' none dhcp static ;;
        pif-reconfigure-ipv6.mode) printf '%s\n' none static ;;
        host-set-power-on-mode.power-on-mode) printf '%s\n' wake-on-lan ;;
        *.role-name) _xe_ask role-list params=name ;;
        *.snap-depletion) printf '%s\n' stop-snapshots delete-oldest volume-offline ;;
        *.compress | *.metadata | *.preserve | *.preserve-power-state | *.include-snapshots | *.copy | *.auto-enable)
            printf '%s\n' true false ;;
    esac
}

# The keys of device-config that a type of SR takes: LINE has type=..., or there are none.
_xe_device_config_keys() {
    [[ $1 =~ (^|[[:space:]])type=([^[:space:]]+) ]] || return
    local key
    _xe_ask sm-list "type=${BASH_REMATCH[2]}" params=configuration | sed 's/; /\n/g' |
        sed -n 's/^\([A-Za-z][A-Za-z0-9_-]*\): .*/\1/p' | while IFS= read -r key; do
            printf 'device-config:%s=\n' "$key"
            [[ $key != *password ]] || printf 'device-config-filename:%s=\n' "$key"
        done
}

_xe_value_words() {
    local command=$1 key=$2 class words
    class=$(_xe_class_of "$command")
    words=$(_xe_choices_of_argument "$command" "$key")
    [[ -n $words ]] || words=$(_xe_choices_of_field "$class" "$key")
    if [[ -n $words ]]; then
        printf '%s\n' "$words"
        return
    fi
    case $key in
        uuid) _xe_values "$class" uuid ;;
        vm | name-label) [[ $key == vm || $command == vm-* ]] && class=vm; _xe_values "$class" name-label ;;
        host | on) _xe_values host name-label ;;
        sr) _xe_values sr name-label ;;
        template | template-name) _xe_values template name-label ;;
        sr-name-label) _xe_values sr name-label ;;
        heartbeat-sr-uuids) _xe_values sr uuid ;;
        snapshot-uuid) _xe_values snapshot uuid ;;
        template-uuid) _xe_values template uuid ;;
        default-SR | suspend-image-SR | crash-dump-SR | suspend-SR-uuid | *-sr-uuid) _xe_values sr uuid ;;
        into-vdi-uuid | base-vdi-uuid | vdi-from-uuid | vdi-to-uuid | base) _xe_values vdi uuid ;;
        affinity | copy-bios-strings-from) _xe_values host uuid ;;
        snapshot-schedule) _xe_values vmss uuid ;;
        cd-name) _xe_ask cd-list params=name-label ;;
        param-name | params) _xe_fields "$command" ;;
        class) printf '%s\n' vm vdi sr host network vif pif vbd pbd pool task subject role secret vmss ;;
        allocation) printf '%s\n' thin thick ;;
        format) printf '%s\n' raw vhd qcow2 ;;
        force | paused | live | multiple | shared | progress | bootable | online | managed | sharable | read-only)
            printf '%s\n' true false ;;
        *-uuid) _xe_values "${key%-uuid}" uuid ;;
    esac
}

# Names of the fields of a command's class, from what its list can be filtered by.
_xe_fields() {
    _xe_arguments "$(_xe_class_of "$1")-list" | grep -v -e '^params$' -e ':' -e '^<'
}

_xe_argument_words() {
    local word
    while IFS= read -r word; do
        case $word in
            '<vm-selectors>') printf '%s=\n' vm uuid name-label ;;
            '<host-selectors>') printf '%s=\n' host uuid name-label ;;
            '<sr-selectors>') printf '%s=\n' sr uuid name-label ;;
            *:) printf '%s\n' "$word" ;;
            ?*) printf '%s=\n' "$word" ;;
        esac
    done < <(_xe_arguments "$1")
    printf '%s\n' --minimal
}

_xe() {
    local _xe_program=${COMP_WORDS[0]:-xe} # as it was typed: it need not be in the path
    local line=${COMP_LINE:0:COMP_POINT} current command key words
    current=${line##*[[:space:]]}
    # The first word after xe and its switches is the command.
    command=
    local skip= word
    for word in ${line%"$current"}; do
        if [[ -n $skip ]]; then skip=; continue; fi
        case $word in
            xe | */xe) ;;
            -s | -h | -p | -u | -pw | -pwf) skip=1 ;;
            -*) ;;
            *) command=$word; break ;;
        esac
    done

    local IFS=$'\n'
    if [[ -z $command || $command == help ]]; then
        words=$(_xe_commands)
    elif [[ $current == filename=* || $current == file-name=* || $current == device-config-filename:*=* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "${current#*=}")
        compopt -o filenames 2>/dev/null
        return
    elif [[ $current == *=* ]]; then
        key=${current%%=*}
        current=${current#*=}
        words=$(_xe_value_words "$command" "${key##*:}")
        if [[ $key == params && $current == *,* ]]; then
            local done_already=${current%,*},
            words=$done_already${words//$'\n'/$'\n'"$done_already"}
        fi
    else
        words=$(_xe_argument_words "$command")
        if [[ -n $current && ( device-config: == "$current"* || $current == device-config* ) ]]; then
            local keys
            keys=$(_xe_device_config_keys "$line")
            [[ -z $keys ]] || words=$keys
        fi
    fi
    # Not by compgen -W: it expands the words, and whoever may name a VM would run commands here.
    COMPREPLY=()
    while IFS= read -r word; do
        [[ -z $word || $word != "$current"* ]] || COMPREPLY+=("$word")
    done <<<"$words"
    local i
    for i in "${!COMPREPLY[@]}"; do
        [[ ${COMPREPLY[i]} != *[=:] ]] || compopt -o nospace 2>/dev/null
        if [[ ${COMPREPLY[i]} == *[^[:alnum:]_./:=,@%+-]* ]]; then
            printf -v "COMPREPLY[i]" '%q' "${COMPREPLY[i]}"
        fi
    done
    # Readline takes ":" for the end of a word: what stands before the last one is typed already.
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local typed=${current%"${current##*:}"}
        for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$typed"}; done
    fi
}

complete -F _xe xe
