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

_xe_value_words() {
    local command=$1 key=$2 class
    class=$(_xe_class_of "$command")
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
        default-SR) _xe_values sr uuid ;;
        cd-name) _xe_ask cd-list params=name-label ;;
        param-name | params) _xe_fields "$command" ;;
        power-state) printf '%s\n' halted paused running suspended ;;
        class) printf '%s\n' vm vdi sr host network vif pif vbd pbd pool task subject role secret vmss ;;
        allocation) printf '%s\n' thin thick ;;
        format) printf '%s\n' raw vhd qcow2 ;;
        force | paused | live | multiple | shared | progress | bootable | online) printf '%s\n' true false ;;
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
