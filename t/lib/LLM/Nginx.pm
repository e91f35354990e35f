package LLM::Nginx;

=head1 NAME

LLM::Nginx - nginx in a directory of its own, for one test

=head1 SYNOPSIS

    use LLM::Nginx;
    use Test::More;

    my $nginx = LLM::Nginx->new;
    $nginx->write_conf(http => <<'CONF', with => { openai => $p->url });
        server {
            listen 127.0.0.1:{{port}};
            location / { proxy_pass {{openai}}; }
        }
    CONF
    $nginx->start;
    is $nginx->client->get('/')->status, 200;

    done_testing;

done_testing stops every nginx that was made and adds two assertions for
each: it ended well, its error log holding no alert, and no memory checker
reported anything.  One more says that no process of them is left.

=head1 METHODS

=over

=item new(...)

    module    => PATH   LLM_MODULE, or build/ngx_http_llm_module.so;
                        undef: none is loaded
    workers   => 1
    master    => 0      master_process off
    daemon    => 1      as in production (upgrade needs it)
    user      => root   of the workers, where root runs the test
    log_level => info   LLM_LOG_LEVEL

=item write_conf(http => TEXT, main => TEXT, events => TEXT, with => {...})

Writes nginx.conf: our own preamble and these parts.  {{port}}, {{port:NAME}}
and {{prefix}} are replaced, and {{NAME}} by what C<with> says.

=item port([NAME]), url([NAME])

A free loopback port, the same one for the same name.

=item client(...)

A new LLM::HTTP for {{port}}, with these options.

=item file(NAME, CONTENT), prefix

A file in the prefix; returns its path.

=item start, reload([leave_old => 1]), quit, stop, upgrade

Return when it has happened, or die with the error log.  reload waits until
the new workers are there and the old ones have ended; with leave_old the
old ones need only have closed their doors.  quit is graceful.  upgrade
(USR2, then QUIT to the old master) needs daemon => 1.

=item reload_fails

A reload with a configuration that nginx must refuse; returns the [emerg]
lines.

=item test_conf

What C<nginx -t> says: (whether it is well, its output).

=item master, workers, children, has_master

Process ids: children are all that the master has, helpers as well; and
whether there is a master, which reload needs.

=item error_log, access_log, wait_log(PATTERN, [SECONDS]), wait_access(...)

The logs so far; true when a log matches, false when it does not in time.

=item env(NAME, VALUE)

An environment variable for nginx, before it starts.

=item expect_killed(PID), expect_log(PATTERN)

What the assertion about alerts shall not complain about.

=item done

Stops nginx and makes the two assertions now: for a test that runs many.

=item retire

Stops nginx and returns (the alerts, as one reference, and the reports of
memory checkers, as text), where no test is to say it.

=back

=head1 ENVIRONMENT

    LLM_NGINX       /usr/sbin/nginx
    LLM_MODULE      the module
    LLM_LOG_LEVEL   info
    LLM_LEAVE       1: the prefix stays, and its name is shown
    LLM_SANITIZE    1: nginx has sanitizers; their reports are looked for
    LLM_VALGRIND    1: all of nginx's processes run under valgrind; what it
                    finds is looked for, and so is what is leaked

=cut

use strict;
use warnings;

use Carp;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp ();
use POSIX qw(WNOHANG);
use Test::Builder;
use Time::HiRes qw(time sleep);

use LLM::HTTP;
use LLM::Port;

use constant {
    POLL    => 0.01,
    SETPRIV => '/usr/bin/setpriv',
};

my $ROOT = abs_path(dirname(__FILE__) . '/../../..');

# Two copies of the module, side by side, are two definitions of everything.

my %CHECKER = (
    ASAN  => ['detect_odr_violation=0'],
    LSAN  => [
        'print_suppressions=0',
        'use_tls=0',    # gcc's own falls over it now and then
        "suppressions=$ROOT/t/sanitize/leak.supp",
    ],
    UBSAN => ['print_stacktrace=1'],
);

my @VALGRIND = (
    qw(valgrind --quiet --trace-children=yes --fair-sched=try),
    qw(--show-leak-kinds=definite --errors-for-leak-kinds=definite),
    "--suppressions=$ROOT/t/valgrind/nginx.supp",
);

my (@instances, %prefixes);

sub new {
    my ($class, %option) = @_;

    my $self = bless {
        owner     => $$,
        binary    => $ENV{LLM_NGINX} || '/usr/sbin/nginx',
        module    => $ENV{LLM_MODULE}
            || "$ROOT/build/ngx_http_llm_module.so",
        log_level => $ENV{LLM_LOG_LEVEL} || 'info',
        workers   => 1,
        master    => 1,
        daemon    => 0,
        user      => 'root',
        patience  => $ENV{LLM_VALGRIND} ? 60 : $ENV{LLM_SANITIZE} ? 30 : 10,
        ports     => {},
        env       => {},
        expected  => [],
        %option,
    }, $class;

    $self->{dir} = File::Temp->newdir('llm-nginx-XXXXXX',
        TMPDIR => 1, CLEANUP => !$ENV{LLM_LEAVE});
    chmod 0755, $self->prefix;
    mkdir $self->prefix . "/$_" for qw(logs temp reports);
    chmod 0777, $self->prefix . '/reports';

    $prefixes{ $self->prefix } = 1;
    push @instances, $self;
    return $self;
}

sub prefix { "$_[0]{dir}" }

sub port {
    my ($self, $name) = @_;

    $name //= '';
    $self->{ports}{$name} //= LLM::Port->new;
    return $self->{ports}{$name}->number;
}

sub url { 'http://127.0.0.1:' . port(@_) }

sub client {
    my ($self, @option) = @_;

    return LLM::HTTP->new($self->url, @option);
}

sub file {
    my ($self, $name, $content) = @_;

    my $path = $self->prefix . "/$name";
    make_path(dirname($path));
    open my $file, '>:raw', $path or croak "$path: $!";
    print {$file} $content;
    close $file or croak "$path: $!";
    return $path;
}

sub env {
    my ($self, $name, $value) = @_;

    $self->{env}{$name} = $value;
    return $self;
}

sub write_conf {
    my ($self, %part) = @_;

    my $with = delete $part{with} // {};
    my ($main, $events, $http)
        = map { $_ // '' } delete @part{qw(main events http)};
    croak "no such part: @{[ keys %part ]}" if %part;

    my $text = $self->_preamble . <<CONF;
$main
events {
$events
}

http {
    access_log $self->{dir}/logs/access.log;
@{[ join "\n", map { "    ${_}_temp_path $self->{dir}/temp/$_;" }
    qw(client_body proxy fastcgi uwsgi scgi) ]}

$http
}
CONF

    $text =~ s/\{\{([\w:]+)\}\}/$self->_replace($1, $with)/ge;
    $self->file('nginx.conf', $text);
    return $self;
}

sub _preamble {
    my $self = shift;

    return join '', map { "$_;\n" }
        defined $self->{module} ? "load_module $self->{module}" : (),
        $> == 0 ? "user $self->{user}" : (),
        'daemon ' . ($self->{daemon} ? 'on' : 'off'),
        'master_process ' . ($self->{master} ? 'on' : 'off'),
        "worker_processes $self->{workers}",
        "pid $self->{dir}/nginx.pid",
        "error_log $self->{dir}/logs/error.log $self->{log_level}";
}

sub _replace {
    my ($self, $name, $with) = @_;

    return $with->{$name}        if exists $with->{$name};
    return $self->port($1)       if $name =~ /^port:(\w+)$/;
    return $self->port           if $name eq 'port';
    return $self->prefix         if $name eq 'prefix';
    croak "nothing to put in for {{$name}}";
}

sub test_conf {
    my $self = shift;

    my $pid = open my $output, '-|';
    defined $pid or croak "fork: $!";
    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        $self->_exec('-e', 'stderr', '-t');
    }

    my $text = do { local $/; <$output> };
    local ($!, $?);
    close $output;
    $text =~ s/^\S+ \S+ (\[\w+\]) \d+#\d+: /nginx: $1 /mg;
    $self->expect_log(qr/\Q$_\E/) for $text =~ /\[emerg\] (.*)/g;
    return ($? == 0, $text);
}

sub start {
    my $self = shift;

    croak 'nginx runs already' if $self->_is_running;
    delete $self->{status};
    unlink $self->_pid_file;

    defined(my $pid = fork) or croak "fork: $!";
    if (!$pid) {
        open STDOUT, '>>', "$self->{dir}/logs/output";
        open STDERR, '>&', \*STDOUT;
        $self->_exec;
    }

    if ($self->{daemon}) {
        waitpid $pid, 0;
        $self->_fail('nginx did not start') if $?;
    } else {
        $self->{pid} = $pid;
    }

    $self->_wait(sub { $self->_read_pid_file })
        or $self->_fail('nginx did not start');
    $self->{pid} = $self->_read_pid_file if $self->{daemon};

    $self->_wait(sub { $self->workers == $self->{workers} })
        or $self->_fail('nginx has not all its workers') if $self->{master};
    return $self;
}

sub reload {
    my ($self, %option) = @_;

    $self->has_master or croak 'only a master can reload';
    my @old = $self->workers;
    my $reloads = () = $self->error_log =~ /reconfiguring/g;
    kill HUP => $self->{pid};

    my $done = $self->_wait(sub {
        my $seen = () = $self->error_log =~ /reconfiguring/g;
        return 0 if $seen <= $reloads;
        my %is_old = map { $_ => 1 } @old;
        my @now = $self->workers;
        return 0 if @now != $self->{workers} || grep { $is_old{$_} } @now;
        return $option{leave_old} || !grep { _is_alive($_) } @old;
    });
    $done or $self->_fail('nginx did not reload');
    return $self;
}

sub reload_fails {
    my $self = shift;

    my $before = length $self->error_log;
    kill HUP => $self->{pid};
    $self->_wait(sub {
        substr($self->error_log, $before) =~ /\[emerg\].*\n/;
    }) or $self->_fail('nginx did not refuse the configuration');

    my @lines = grep { /\[emerg\]/ }
        split /\n/, substr $self->error_log, $before;
    $self->expect_log(qr/\Q$_\E/) for @lines;
    return join "\n", @lines;
}

sub upgrade {
    my $self = shift;

    my $old = $self->{pid};
    my $new;
    kill USR2 => $old;
    $self->_wait(sub {
        $new = $self->_read_pid_file;
        return $new && $new != $old
            && $self->_workers_of($new) == $self->{workers};
    }) or $self->_fail('no new master came up');

    kill QUIT => $old;
    $self->_wait(sub { !_is_alive($old) })
        or $self->_fail('the old master did not go');
    $self->{pid} = $new;
    return $self;
}

sub quit { $_[0]->_end('QUIT') }
sub stop { $_[0]->_end('TERM') }

sub master     { $_[0]{pid} }
sub has_master { $_[0]{master} }

sub workers {
    my $self = shift;

    my $pid = $self->{pid} or return;
    return $self->{master} ? $self->_workers_of($pid) : $pid;
}

# all processes of the master's, helpers as well

sub children {
    my $self = shift;

    return $self->{pid} ? _children_of($self->{pid}) : ();
}

sub error_log  { _read("$_[0]{dir}/logs/error.log") }
sub access_log { _read("$_[0]{dir}/logs/access.log") }

sub wait_log {
    my ($self, $pattern, $patience) = @_;

    return $self->_wait(sub { $self->error_log =~ $pattern }, $patience);
}

sub wait_access {
    my ($self, $pattern, $patience) = @_;

    return $self->_wait(sub { $self->access_log =~ $pattern }, $patience);
}

sub expect_killed {
    my ($self, $pid) = @_;

    $self->{killed}{$pid} = 1;
    return $self->expect_log(qr/process $pid exited on signal/);
}

sub expect_log {
    my ($self, $pattern) = @_;

    push @{ $self->{expected} }, $pattern;
    return $self;
}

# the end

sub _end {
    my ($self, $signal, $patience) = @_;

    return $self if !$self->_is_running;
    kill $signal => $self->{pid};
    $self->_wait(sub { !$self->_is_running }, $patience)
        or croak "nginx did not end on $signal";
    return $self;
}

sub _kill {
    my $self = shift;

    return if $self->{owner} != $$;
    local ($?, $!);

    # one that runs would replace its workers as fast as they are killed
    my @masters = $self->_masters;
    kill STOP => @masters;
    kill KILL => map({ _children_of($_) } @masters), @masters;
    for my $pid (@masters) {
        waitpid $pid, 0 if !$self->{daemon};
    }
    delete $self->{pid};
}

sub DESTROY { $_[0]->_kill }

sub retire {
    my $self = shift;

    @instances = grep { $_ != $self } @instances;

    # a client that has not gone would hold a graceful nginx for ever
    my $has_ended = eval { $self->_end('QUIT', $self->{patience} / 3); 1 }
        || eval { $self->stop; 1 };

    my @alerts = $self->_alerts;
    push @alerts, "nginx ended with $self->{status}" if $self->{status};
    push @alerts, $@ if !$has_ended;
    return \@alerts, $self->_reports;
}

sub done {
    my $self = shift;

    my $test = Test::Builder->new;
    my ($alerts, $reports) = $self->retire;

    $test->is_num(scalar @$alerts, 0, 'no alerts in the error log')
        or $test->diag(join "\n", @$alerts);
    $test->ok($reports eq '', 'no complaints of memory checkers')
        or $test->diag($reports);
    $test->note('prefix: ', $self->prefix) if $ENV{LLM_LEAVE};
}

sub _alerts {
    my $self = shift;

    my @lines = grep { /\[(?:alert|crit|emerg)\]|exited on signal/ }
        split /\n/, $self->error_log;
    for my $pattern (@{ $self->{expected} }) {
        @lines = grep { $_ !~ $pattern } @lines;
    }
    return @lines;
}

sub _reports {
    my $self = shift;

    my $prefix = $self->prefix;
    return join '', map({ _read($_) } glob "$prefix/reports/*"),
        map { _undefined(_read("$prefix/logs/$_")) } qw(error.log output);
}

# Undefined behaviour is told on stderr, which is the log of nginx.

sub _undefined { $_[0] =~ /^.*:\ runtime\ error:\ .*\n(?:\ +\#.*\n)*/gmx }

# an nginx that does not start leaves to its end what it has read

sub _forget_leaks {
    my $self = shift;

    unlink grep {
        my $report = _read($_);
        $report =~ /ERROR: LeakSanitizer/
            && $report !~ /ERROR: AddressSanitizer|runtime error/;
    } glob "$self->{dir}/reports/*";
}

# how nginx is run

sub _exec {
    my ($self, @arguments) = @_;

    my @command = ($self->{binary}, '-p', $self->prefix,
        '-c', "$self->{dir}/nginx.conf",
        '-e', "$self->{dir}/logs/error.log", @arguments);

    # nginx -t leaves to the end of the process what it has read
    my $is_test = grep { $_ eq '-t' } @arguments;

    unshift @command, @VALGRIND,
        '--leak-check=' . ($is_test ? 'no' : 'full'),
        "--log-file=$self->{dir}/reports/valgrind.%p"
        if $ENV{LLM_VALGRIND};

    # not even a test that is killed leaves its server behind
    unshift @command, SETPRIV, qw(--pdeathsig TERM)
        if !$self->{daemon} && -x SETPRIV;

    local %ENV = (%ENV, %{ $self->{env} });
    if ($ENV{LLM_SANITIZE}) {
        for my $checker (sort keys %CHECKER) {
            $ENV{"${checker}_OPTIONS"} = join ':',
                @{ $CHECKER{$checker} },
                "log_path=$self->{dir}/reports/sanitizer",
                grep { length } $ENV{"${checker}_OPTIONS"} // '';
        }

        $ENV{ASAN_OPTIONS} .= ':detect_leaks=0' if $is_test;
    }

    { no warnings 'exec'; exec @command }
    print STDERR "$command[0]: $!\n";
    POSIX::_exit(127);
}

sub _is_running {
    my $self = shift;

    my $pid = $self->{pid} or return 0;
    if (!$self->{daemon}) {
        local ($?, $!);
        return 1 if waitpid($pid, WNOHANG) != $pid;
        $self->{status} = $? unless $self->{killed}{$pid};
    } elsif (_is_alive($pid)) {
        return 1;
    }

    delete $self->{pid};
    return 0;
}

sub _wait {
    my ($self, $condition, $patience) = @_;

    my $runs     = $self->{pid};
    my $deadline = time + ($patience // $self->{patience});
    while (1) {
        my $is_late = time > $deadline || $runs && !$self->_is_running;
        return 1 if $condition->();
        return 0 if $is_late;
        sleep POLL;
    }
}

sub _fail {
    my ($self, $message) = @_;

    my $output = _read("$self->{dir}/logs/output");
    my @log = split /\n/, $self->error_log;
    splice @log, 0, -20 if @log > 20;
    $self->_kill;

    # the test has been told, and goes on only if it wanted this
    delete $self->{status};
    $self->expect_log(qr/\Q$_\E/) for grep { /\[emerg\]/ } @log;
    $self->_forget_leaks;
    croak join "\n", $message, $output, @log;
}

# ours, and while one replaces the other, both

sub _masters {
    my $self = shift;

    return $self->_is_running ? $self->{pid} : () if !$self->{daemon};

    my $prefix = $self->prefix;
    return grep { _read("/proc/$_/cmdline") =~ /\Q$prefix\E/ }
        map { _read($_) =~ /(\d+)/ } glob $self->_pid_file . '*';
}

sub _pid_file { "$_[0]{dir}/nginx.pid" }

sub _read_pid_file {
    my $self = shift;

    my ($pid) = _read($self->_pid_file) =~ /^(\d+)\n/;
    return $pid;
}

# processes, as Linux shows them

sub _is_alive {
    my $pid = shift;

    my ($state) = _process($pid);
    return defined $state && $state ne 'Z';
}

# those that take connections: not the ones that are shutting down

sub _workers_of {
    my ($self, $master) = @_;

    my @children = _children_of($master);
    return grep { _read("/proc/$_/cmdline") =~ /worker process(?! is)/ }
        @children if !$ENV{LLM_VALGRIND};

    # their titles are those of valgrind, so the log has to tell
    my $log = $self->error_log;
    my %takes = map { $_ => 1 } $log =~ /start worker process (\d+)$/mg;
    delete @takes{ $log =~ /\] (\d+)#\d+: gracefully shutting down$/mg };
    return grep { $takes{$_} } @children;
}

sub _children_of {
    my $parent = shift;

    return grep {
        my ($state, $its_parent) = _process($_);
        defined $state && $state ne 'Z' && $its_parent == $parent;
    } map { m{(\d+)$} } glob '/proc/[0-9]*';
}

sub _process {
    my $pid = shift;

    return _read("/proc/$pid/stat") =~ /\) (\S) (\d+)/;
}

sub _read {
    my $path = shift;

    open my $file, '<:raw', $path or return '';
    local $/;
    return <$file> // '';
}

# Nobody's parent any more, and still there: told by the log it writes to.

sub _left {
    return grep {
        my ($prefix) = (readlink "/proc/$_/fd/2" // '') =~ m{^(.+)/logs/};
        defined $prefix && $prefixes{$prefix};
    } map { m{(\d+)$} } glob '/proc/[0-9]*';
}

sub _nothing_is_left {
    my $test = shift;

    return if !%prefixes;

    my $deadline = time + 10;
    my @left;
    sleep POLL while (@left = _left()) && time < $deadline;
    $test->is_num(scalar @left, 0, 'no process of nginx is left')
        or kill KILL => @left;
}

# A test that has come to its end stops its servers, and says what they have
# left behind.

{
    no warnings 'redefine';
    my $done_testing = \&Test::Builder::done_testing;
    *Test::Builder::done_testing = sub {
        my $test = $_[0];

        if (!$test->parent) {
            $_->done for my @all = @instances;
            _nothing_is_left($test);
        }
        goto &$done_testing;
    };
}

$SIG{$_} //= sub { exit 1 } for qw(INT TERM HUP);

END {
    my $status = $?;
    $_->_kill for @instances;
    @instances = ();
    $? = $status;
}

1;
