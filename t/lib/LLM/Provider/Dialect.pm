package LLM::Provider::Dialect;

=head1 NAME

LLM::Provider::Dialect - what the APIs of the providers look like

=head1 SYNOPSIS

    my $dialect = LLM::Provider::Dialect->new($form, {
        id => 'openai-1', model => 'gpt-4.1', tokens => ['a ', 'b'],
        kind => 'text', input => 7, output => 2, usage => 1,
    });
    $dialect->whole;        # the answer of a call that does not stream
    $dialect->opening;      # frames before the first content token
    $dialect->token(0);     # the frame of a content token
    $dialect->closing;      # frames that finish the answer
    $dialect->end;          # [DONE], where the form has it
    $dialect->error($status, { code => ..., message => ... });
    $dialect->error_frame({ ... });

Forms: chat, completions, responses, messages, embeddings, models.
Kinds of token: text, tool, reasoning, refusal.

=cut

use strict;
use warnings;

use JSON::PP ();

my $JSON = JSON::PP->new->utf8->canonical;

my %FORM_OF_PATH = (
    'chat/completions' => 'chat',
    completions        => 'completions',
    responses          => 'responses',
    messages           => 'messages',
    embeddings         => 'embeddings',
    models             => 'models',
);

my %ERROR_TYPE = (
    400 => ['invalid_request_error', 'invalid_request_error'],
    401 => ['authentication_error',  'invalid_request_error'],
    403 => ['permission_error',      'permission_error'],
    404 => ['not_found_error',       'invalid_request_error'],
    413 => ['request_too_large',     'invalid_request_error'],
    429 => ['rate_limit_error',      'rate_limit_error'],
    529 => ['overloaded_error',      'overloaded_error'],
);

sub form_of {
    my ($class, $uri) = @_;

    my ($path) = $uri =~ /^([^?]*)/;
    return $path =~ m{\bchat/completions/?$} ? 'chat'
         : $path =~ m{(\w+)/?$}              ? $FORM_OF_PATH{$1} // 'chat'
         :                                     'chat';
}

sub new {
    my ($class, $form, $say) = @_;

    my $self = bless { %$say, sequence => 0, time => time },
        $class . '::' . ucfirst $form;
    $self->can('whole') or die qq(no form "$form"\n);
    return $self;
}

sub opening { () }
sub closing { () }
sub end     { () }
sub token   { die "this form does not stream\n" }

sub text { join '', @{ $_[0]{tokens} } }

sub json  { $JSON->encode($_[1]) }
sub data  { 'data: ' . $_[0]->json($_[1]) . "\n\n" }
sub event { "event: $_[1]{type}\n" . $_[0]->data($_[1]) }

sub ping { ": keep-alive\n\n" }

sub error_frame {
    my ($self, $error) = @_;

    return $self->data($self->error(500, $error));
}

sub error {
    my ($self, $status, $error) = @_;

    return {
        error => {
            message => $error->{message} // "made-up error $status",
            type    => $error->{type}    // $self->error_type($status, 1),
            param   => undef,
            code    => $error->{code},
        },
    };
}

sub error_type {
    my ($self, $status, $openai) = @_;

    my $types = $ERROR_TYPE{$status}
        // ($status < 500 ? $ERROR_TYPE{400} : ['api_error', 'server_error']);
    return $types->[ $openai ? 1 : 0 ];
}

# prompt_tokens and its kin, or input_tokens and its kin

sub usage {
    my ($self, $in, $out, $total) = @_;

    my %usage = ($in => $self->{input}, $out => $self->{output});
    $usage{$total} = $self->{input} + $self->{output} if $total;
    return \%usage;
}


package LLM::Provider::Dialect::Chat;

use parent -norequire, 'LLM::Provider::Dialect';

sub whole {
    my $self = shift;

    my $kind = $self->{kind};
    my $text = $self->text;

    my $message = { role => 'assistant', content => undef };
    if ($kind eq 'tool') {
        $message->{tool_calls} = [ $self->call($text) ];
    } else {
        $message->{ $self->member } = $text;
    }

    return {
        $self->envelope('chat.completion'),
        choices => [{
            index         => 0,
            message       => $message,
            finish_reason => $self->finish,
        }],
        $self->whole_usage,
    };
}

sub opening {
    my $self = shift;

    return $self->chunk({ role => 'assistant', content => '' });
}

sub token {
    my ($self, $n) = @_;

    my $text = $self->{tokens}[$n];
    return $self->chunk({ $self->member => $text })
        if $self->{kind} ne 'tool';

    my $call = $n ? { function => { arguments => $text } }
                  : $self->call($text);
    return $self->chunk({ tool_calls => [{ index => 0, %$call }] });
}

sub closing {
    my $self = shift;

    my @frames = $self->chunk({}, $self->finish);
    push @frames, $self->data({
        $self->envelope('chat.completion.chunk'),
        choices => [],
        $self->whole_usage,
    }) if $self->{usage};
    return @frames;
}

sub end { "data: [DONE]\n\n" }

sub chunk {
    my ($self, $delta, $finish) = @_;

    return $self->data({
        $self->envelope('chat.completion.chunk'),
        choices => [
            { index => 0, delta => $delta, finish_reason => $finish },
        ],
    });
}

sub envelope {
    my ($self, $object) = @_;

    return (
        id      => "chatcmpl-$self->{id}",
        object  => $object,
        created => $self->{time},
        model   => $self->{model},
    );
}

sub whole_usage {
    my $self = shift;

    return usage =>
        $self->usage(qw(prompt_tokens completion_tokens total_tokens));
}

sub member {
    my $self = shift;

    return { reasoning => 'reasoning_content', refusal => 'refusal' }
        ->{ $self->{kind} } // 'content';
}

sub call {
    my ($self, $arguments) = @_;

    return {
        id       => "call_$self->{id}",
        type     => 'function',
        function => { name => 'lookup', arguments => $arguments },
    };
}

sub finish { $_[0]{kind} eq 'tool' ? 'tool_calls' : 'stop' }


package LLM::Provider::Dialect::Completions;

use parent -norequire, 'LLM::Provider::Dialect::Chat';

sub whole {
    my $self = shift;

    return { $self->choice($self->text, 'stop'), $self->whole_usage };
}

sub opening { () }

sub token {
    my ($self, $n) = @_;

    return $self->data({ $self->choice($self->{tokens}[$n]) });
}

sub chunk {
    my ($self, $delta, $finish) = @_;

    return $self->data({ $self->choice('', $finish) });
}

sub choice {
    my ($self, $text, $finish) = @_;

    return (
        $self->envelope,
        choices => [{
            index         => 0,
            text          => $text,
            logprobs      => undef,
            finish_reason => $finish,
        }],
    );
}

sub envelope {
    my $self = shift;

    return ($self->SUPER::envelope('text_completion'),
        id => "cmpl-$self->{id}");
}


package LLM::Provider::Dialect::Responses;

use parent -norequire, 'LLM::Provider::Dialect';

my %DELTA = (
    text      => 'response.output_text.delta',
    tool      => 'response.function_call_arguments.delta',
    reasoning => 'response.reasoning_summary_text.delta',
    refusal   => 'response.refusal.delta',
);

sub whole {
    my $self = shift;

    return {
        $self->envelope('completed'),
        output => [ $self->item('completed', $self->text) ],
        usage  => $self->usage(qw(input_tokens output_tokens total_tokens)),
    };
}

sub opening {
    my $self = shift;

    my %response = ($self->envelope('in_progress'), output => []);
    return (
        $self->next_event('response.created', response => \%response),
        $self->next_event('response.in_progress', response => \%response),
        $self->next_event('response.output_item.added',
            output_index => 0, item => $self->item('in_progress')),
    );
}

sub token {
    my ($self, $n) = @_;

    return $self->next_event(
        $DELTA{ $self->{kind} },
        item_id      => "msg_$self->{id}",
        output_index => 0,
        delta        => $self->{tokens}[$n],
    );
}

sub closing {
    my $self = shift;

    return (
        $self->next_event('response.output_item.done',
            output_index => 0,
            item         => $self->item('completed', $self->text)),
        $self->next_event('response.completed', response => $self->whole),
    );
}

sub error_frame {
    my ($self, $error) = @_;

    return $self->next_event(
        'error',
        code    => $error->{code}    // 'server_error',
        message => $error->{message} // 'made-up error',
        param   => undef,
    );
}

sub next_event {
    my ($self, $type, %members) = @_;

    return $self->event(
        { type => $type, sequence_number => $self->{sequence}++, %members });
}

sub envelope {
    my ($self, $status) = @_;

    return (
        id         => "resp_$self->{id}",
        object     => 'response',
        created_at => $self->{time},
        status     => $status,
        model      => $self->{model},
    );
}

sub item {
    my ($self, $status, $text) = @_;

    return {
        id        => "fc_$self->{id}",
        type      => 'function_call',
        status    => $status,
        call_id   => "call_$self->{id}",
        name      => 'lookup',
        arguments => $text // '',
    } if $self->{kind} eq 'tool';

    my $part = $self->{kind} eq 'refusal'
        ? { type => 'refusal', refusal => $text }
        : { type => 'output_text', text => $text, annotations => [] };

    return {
        id      => "msg_$self->{id}",
        type    => 'message',
        status  => $status,
        role    => 'assistant',
        content => defined $text ? [$part] : [],
    };
}


package LLM::Provider::Dialect::Messages;

use parent -norequire, 'LLM::Provider::Dialect';

my %BLOCK = (
    text      => ['text',     'text_delta',       'text'],
    reasoning => ['thinking', 'thinking_delta',   'thinking'],
    tool      => ['tool_use', 'input_json_delta', 'partial_json'],
    refusal   => ['text',     'text_delta',       'text'],
);

sub whole {
    my $self = shift;

    return {
        $self->envelope,
        content     => [ $self->block($self->text) ],
        stop_reason => $self->stop_reason,
        usage       => $self->usage(qw(input_tokens output_tokens)),
    };
}

sub opening {
    my $self = shift;

    return (
        $self->event({
            type    => 'message_start',
            message => {
                $self->envelope,
                content     => [],
                stop_reason => undef,
                usage => { input_tokens => $self->{input}, output_tokens => 1 },
            },
        }),
        $self->event({
            type          => 'content_block_start',
            index         => 0,
            content_block => $self->block(''),
        }),
        $self->ping,
    );
}

sub token {
    my ($self, $n) = @_;

    my (undef, $type, $member) = @{ $BLOCK{ $self->{kind} } };
    return $self->event({
        type  => 'content_block_delta',
        index => 0,
        delta => { type => $type, $member => $self->{tokens}[$n] },
    });
}

sub closing {
    my $self = shift;

    return (
        $self->event({ type => 'content_block_stop', index => 0 }),
        $self->event({
            type  => 'message_delta',
            delta => { stop_reason => $self->stop_reason },
            usage => { output_tokens => $self->{output} },
        }),
        $self->event({ type => 'message_stop' }),
    );
}

sub ping { $_[0]->event({ type => 'ping' }) }

sub error_frame {
    my ($self, $error) = @_;

    return $self->event($self->error(529, $error));
}

sub error {
    my ($self, $status, $error) = @_;

    return {
        type  => 'error',
        error => {
            type    => $error->{type}    // $self->error_type($status),
            message => $error->{message} // "made-up error $status",
        },
    };
}

sub envelope {
    my $self = shift;

    return (
        id            => "msg_$self->{id}",
        type          => 'message',
        role          => 'assistant',
        model         => $self->{model},
        stop_sequence => undef,
    );
}

sub block {
    my ($self, $text) = @_;

    return {
        type  => 'tool_use',
        id    => "toolu_$self->{id}",
        name  => 'lookup',
        input => length $text ? { text => $text } : {},
    } if $self->{kind} eq 'tool';

    my ($type, undef, $member) = @{ $BLOCK{ $self->{kind} } };
    return { type => $type, $member => $text };
}

sub stop_reason { $_[0]{kind} eq 'tool' ? 'tool_use' : 'end_turn' }


package LLM::Provider::Dialect::Embeddings;

use parent -norequire, 'LLM::Provider::Dialect';

sub whole {
    my $self = shift;

    return {
        object => 'list',
        model  => $self->{model},
        data   => [
            { object => 'embedding', index => 0, embedding => [ 0.25, -0.5 ] },
        ],
        usage => {
            prompt_tokens => $self->{input},
            total_tokens  => $self->{input},
        },
    };
}


package LLM::Provider::Dialect::Models;

use parent -norequire, 'LLM::Provider::Dialect';

sub whole {
    my $self = shift;

    return {
        object => 'list',
        data   => [{ id => $self->{model}, object => 'model' }],
    };
}

1;
